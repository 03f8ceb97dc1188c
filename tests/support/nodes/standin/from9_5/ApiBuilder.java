package standin;

import org.elasticsearch.index.mapper.FieldMapper;

/** A builder of fields, as of 9.5. */
abstract class ApiBuilder extends FieldMapper.Builder {
    ApiBuilder(String name) {
        super(name);
    }
}
