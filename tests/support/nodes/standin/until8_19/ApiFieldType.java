package standin;

import java.util.Map;
import org.elasticsearch.index.mapper.MappedFieldType;
import org.elasticsearch.index.mapper.TextSearchInfo;

/** A field that is indexed, neither stored nor with values in columns, until 8.19. */
abstract class ApiFieldType extends MappedFieldType {
    ApiFieldType(String name, Map<String, String> meta) {
        super(name, true, false, false, TextSearchInfo.NONE, meta);
    }
}
