package standin;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.regex.Pattern;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.Tokenizer;
import org.apache.lucene.analysis.email.UAX29URLEmailTokenizer;
import org.apache.lucene.analysis.pattern.PatternCaptureGroupTokenFilter;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.index.analysis.TokenFilterFactory;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.index.mapper.Mapper;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.MapperPlugin;
import org.elasticsearch.plugins.SearchPlugin;

/**
 * Stands in for modules of Elasticsearch's default distribution that Maven doesn't serve: `rank_features` and the query
 * `rank_feature` (mapper-extras), `GET /` (rest-root), and the analysis that the index of users and API keys is created with
 * (analysis-common).
 */
public final class StandInPlugin extends ApiPlugin implements AnalysisPlugin, MapperPlugin, SearchPlugin {
    @Override
    public Map<String, Mapper.TypeParser> getMappers() {
        return Map.of(RankFeaturesMapper.TYPE, RankFeaturesMapper.PARSER);
    }

    @Override
    public List<QuerySpec<?>> getQueries() {
        return List.of(new QuerySpec<>(RankFeatureQuery.NAME, RankFeatureQuery::new, RankFeatureQuery::parse));
    }

    @Override
    public Map<String, AnalysisProvider<TokenFilterFactory>> getTokenFilters() {
        return Map.of(
                "pattern_capture", (index, environment, name, settings) -> filter(name, capturePatterns(settings)),
                "unique", (index, environment, name, settings) -> filter(name, UniqueTokenFilter::new));
    }

    @Override
    public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
        return Map.of("uax_url_email", (index, environment, name, settings) -> tokenizer(name));
    }

    private static Function<TokenStream, TokenStream> capturePatterns(Settings settings) {
        List<Pattern> patterns = new ArrayList<>();
        settings.getAsList("patterns").forEach(text -> patterns.add(Pattern.compile(text)));
        boolean keep = settings.getAsBoolean("preserve_original", true);
        return tokens ->
                new PatternCaptureGroupTokenFilter(tokens, keep, patterns.toArray(new Pattern[0]));
    }

    private static TokenFilterFactory filter(String name, Function<TokenStream, TokenStream> wrap) {
        return new TokenFilterFactory() {
            @Override
            public String name() {
                return name;
            }

            @Override
            public TokenStream create(TokenStream tokens) {
                return wrap.apply(tokens);
            }
        };
    }

    private static TokenizerFactory tokenizer(String name) {
        return new TokenizerFactory() {
            @Override
            public String name() {
                return name;
            }

            @Override
            public Tokenizer create() {
                return new UAX29URLEmailTokenizer();
            }
        };
    }
}
