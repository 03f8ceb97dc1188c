package standin;

import java.util.Map;
import org.elasticsearch.index.mapper.IndexType;
import org.elasticsearch.index.mapper.MappedFieldType;

/** A field that is indexed, neither stored nor with values in columns, as of 9.5. */
abstract class ApiFieldType extends MappedFieldType {
    ApiFieldType(String name, Map<String, String> meta) {
        super(name, IndexType.terms(true, false), false, meta);
    }
}
