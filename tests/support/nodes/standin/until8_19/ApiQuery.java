package standin;

import java.io.IOException;
import org.apache.lucene.search.Query;
import org.elasticsearch.TransportVersion;
import org.elasticsearch.TransportVersions;
import org.elasticsearch.common.io.stream.StreamInput;
import org.elasticsearch.index.query.AbstractQueryBuilder;
import org.elasticsearch.index.query.SearchExecutionContext;

/** A query, until 8.19. */
abstract class ApiQuery<Q extends ApiQuery<Q>> extends AbstractQueryBuilder<Q> {
    ApiQuery() {}

    ApiQuery(StreamInput input) throws IOException {
        super(input);
    }

    abstract Query createQuery(SearchExecutionContext context);

    @Override
    protected Query doToQuery(SearchExecutionContext context) {
        return createQuery(context);
    }

    @Override
    public TransportVersion getMinimalSupportedVersion() {
        return TransportVersions.ZERO;
    }
}
