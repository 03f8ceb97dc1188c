"""`stair-es ingest --field`: which columns become fields of the documents."""

from __future__ import annotations

from stair_es.errors import UsageError


def parse_columns(values: list[str]) -> dict[str, str]:
    """Parse `--field a=b,c:float=d --field e=f` into field -> column; `*` is all columns.

    Raises:
        UsageError: If the form is wrong, a field is repeated, or has a reserved name.
    """
    from stair_es.cluster.documents.document import check_field_names
    from stair_es.sources.kinds.fields import NUMBER_TYPES, split_field_type

    columns, names = dict[str, str](), set[str]()
    for part in (part.strip() for text in values for part in text.split(",")):
        field, separator, column = part.partition("=")
        if part == "*":
            field = column = "*"
        elif not (field and separator and column):
            raise UsageError(f"not a column mapping: {part!r}", "Write --field caption=text,price:float=cost or --field '*'.")
        name = split_field_type(field)[0]
        if ":" in name:
            raise UsageError(f"no such type: {field!r}", f"Write NAME:TYPE=COLUMN with one of {', '.join(NUMBER_TYPES)}.")
        if name in names:
            raise UsageError(f"--field names the field {name!r} twice", "Give each field one column.")
        columns[field] = column
        names.add(name)
    check_field_names(names - {"*"})
    return columns
