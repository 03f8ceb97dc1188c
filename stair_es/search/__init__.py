"""Search: a sparse vector -> a request body (`queries`), an answer (`searcher`) and its reasons (`explain`)."""
