package standin;

import org.elasticsearch.index.mapper.FieldMapper;

/** A builder of fields, until 8.19. */
abstract class ApiBuilder extends FieldMapper.Builder {
    ApiBuilder(String name) {
        super(name);
    }

    public abstract String contentType();
}
