package standin;

import java.io.IOException;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.elasticsearch.common.io.stream.StreamInput;
import org.elasticsearch.common.io.stream.StreamOutput;
import org.elasticsearch.index.query.SearchExecutionContext;
import org.elasticsearch.xcontent.XContentBuilder;
import org.elasticsearch.xcontent.XContentParser;
import org.elasticsearch.xcontent.XContentParser.Token;

/** The query `rank_feature` of one feature, with the functions `linear`, `saturation` (with a pivot) and `log`. */
final class RankFeatureQuery extends ApiQuery<RankFeatureQuery> {
    static final String NAME = "rank_feature";

    private final String field;
    private final String function;
    private final Map<String, Float> parameters;

    private RankFeatureQuery(String field, String function, Map<String, Float> parameters) {
        this.field = field;
        this.function = function;
        this.parameters = parameters;
    }

    RankFeatureQuery(StreamInput input) throws IOException {
        super(input);
        field = input.readString();
        function = input.readString();
        parameters = new TreeMap<>(input.readMap(StreamInput::readFloat));
    }

    static RankFeatureQuery parse(XContentParser parser) throws IOException {
        String field = null;
        String function = "saturation";
        String name = null;
        float boost = DEFAULT_BOOST;
        Map<String, Float> parameters = new TreeMap<>();
        while (parser.nextToken() != Token.END_OBJECT) {
            String key = parser.currentName();
            Token token = parser.nextToken();
            if (token == Token.START_OBJECT) {
                function = key;
                while (parser.nextToken() != Token.END_OBJECT) {
                    String parameter = parser.currentName();
                    parser.nextToken();
                    parameters.put(parameter, parser.floatValue(true));
                }
            } else if (key.equals("field")) {
                field = parser.text();
            } else if (key.equals("boost")) {
                boost = parser.floatValue(true);
            } else if (key.equals("_name")) {
                name = parser.text();
            } else {
                throw new IllegalArgumentException("[rank_feature] unknown field [" + key + "]");
            }
        }
        if (field == null) {
            throw new IllegalArgumentException("[rank_feature] needs a [field]");
        }
        return new RankFeatureQuery(field, function, parameters).boost(boost).queryName(name);
    }

    @Override
    Query createQuery(SearchExecutionContext context) {
        for (int dot = field.indexOf('.'); dot > 0; dot = field.indexOf('.', dot + 1)) {
            String parent = field.substring(0, dot);
            if (context.getFieldType(parent) instanceof RankFeaturesMapper.FieldType) {
                return createQuery(parent, field.substring(dot + 1));
            }
        }
        if (context.getFieldType(field) != null) {
            throw new IllegalArgumentException("[rank_feature] takes a feature of a [rank_features] field, not " + field);
        }
        return new MatchNoDocsQuery("there is no field " + field);
    }

    private Query createQuery(String parent, String feature) {
        // Lucene takes weights up to 64; the boost of the query multiplies the score afterwards.
        return switch (function) {
            case "linear" -> FeatureField.newLinearQuery(parent, feature, 1);
            case "log" -> FeatureField.newLogQuery(parent, feature, 1, parameters.get("scaling_factor"));
            case "saturation" -> parameters.containsKey("pivot")
                    ? FeatureField.newSaturationQuery(parent, feature, 1, parameters.get("pivot"))
                    : FeatureField.newSaturationQuery(parent, feature);
            default -> throw new IllegalArgumentException("[rank_feature] unknown field [" + function + "]");
        };
    }

    @Override
    protected void doWriteTo(StreamOutput output) throws IOException {
        output.writeString(field);
        output.writeString(function);
        output.writeMap(parameters, StreamOutput::writeFloat);
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params parameters) throws IOException {
        builder.startObject(NAME);
        builder.field("field", field);
        builder.field(function, this.parameters);
        boostAndQueryNameToXContent(builder);
        builder.endObject();
    }

    @Override
    protected boolean doEquals(RankFeatureQuery other) {
        return field.equals(other.field) && function.equals(other.function) && parameters.equals(other.parameters);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(field, function, parameters);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }
}
