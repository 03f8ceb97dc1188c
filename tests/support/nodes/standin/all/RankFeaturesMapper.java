package standin;

import java.io.IOException;
import java.util.Map;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.search.Query;
import org.elasticsearch.index.mapper.DocumentParserContext;
import org.elasticsearch.index.mapper.FieldMapper;
import org.elasticsearch.index.mapper.MapperBuilderContext;
import org.elasticsearch.index.mapper.SourceValueFetcher;
import org.elasticsearch.index.mapper.ValueFetcher;
import org.elasticsearch.index.query.SearchExecutionContext;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xcontent.XContentParser.Token;

/** The field type `rank_features`: an object of positive numbers, as Lucene's FeatureField. */
final class RankFeaturesMapper extends FieldMapper {
    static final String TYPE = "rank_features";
    static final TypeParser PARSER = new TypeParser((name, context) -> new Builder(name));

    private final boolean positiveScoreImpact;

    private RankFeaturesMapper(String name, FieldType type, BuilderParams parameters, boolean positiveScoreImpact) {
        super(name, type, parameters);
        this.positiveScoreImpact = positiveScoreImpact;
    }

    @Override
    public void parse(DocumentParserContext context) throws IOException {
        XContentParser parser = context.parser();
        if (parser.currentToken() == Token.VALUE_NULL) {
            return;
        }
        if (parser.currentToken() != Token.START_OBJECT) {
            throw new IllegalArgumentException(
                    "[rank_features] fields must be json objects, but got " + parser.currentToken());
        }
        String field = fieldType().name();
        while (parser.nextToken() != Token.END_OBJECT) {
            String feature = parser.currentName();
            Token token = parser.nextToken();
            if (token == Token.VALUE_NULL) {
                continue;
            }
            if (token != Token.VALUE_NUMBER && token != Token.VALUE_STRING) {
                throw new IllegalArgumentException("[rank_features] takes numbers, but got " + token + " for " + feature);
            }
            String key = field + "." + feature;
            if (context.doc().getByKey(key) != null) {
                throw new IllegalArgumentException("[rank_features] has more than one value of " + key);
            }
            float value = parser.floatValue(true);
            context.doc().addWithKey(key, new FeatureField(field, feature, positiveScoreImpact ? value : 1 / value));
        }
        context.addToFieldNames(field);
    }

    @Override
    protected void parseCreateField(DocumentParserContext context) {
        throw new AssertionError("parse() reads the whole object");
    }

    @Override
    public FieldMapper.Builder getMergeBuilder() {
        return new Builder(leafName()).init(this);
    }

    @Override
    protected String contentType() {
        return TYPE;
    }

    private static final class Builder extends ApiBuilder {
        private final Parameter<Boolean> positiveScoreImpact = Parameter.boolParam(
                "positive_score_impact", false, mapper -> ((RankFeaturesMapper) mapper).positiveScoreImpact, true);
        private final Parameter<Map<String, String>> meta = Parameter.metaParam();

        Builder(String name) {
            super(name);
        }

        @Override
        protected Parameter<?>[] getParameters() {
            return new Parameter<?>[] {positiveScoreImpact, meta};
        }

        @Override
        public String contentType() {
            return TYPE;
        }

        @Override
        public FieldMapper build(MapperBuilderContext context) {
            FieldType type = new FieldType(context.buildFullName(leafName()), meta.getValue());
            return new RankFeaturesMapper(leafName(), type, builderParams(this, context), positiveScoreImpact.getValue());
        }
    }

    static final class FieldType extends ApiFieldType {
        FieldType(String name, Map<String, String> meta) {
            super(name, meta);
        }

        @Override
        public String typeName() {
            return TYPE;
        }

        @Override
        public ValueFetcher valueFetcher(SearchExecutionContext context, String format) {
            return SourceValueFetcher.identity(name(), context, format);
        }

        @Override
        public Query termQuery(Object value, SearchExecutionContext context) {
            throw new IllegalArgumentException("[rank_features] fields take the query [rank_feature] only");
        }
    }
}
