"""Images behind http(s) URLs that strangers wrote: what may be fetched, from where, how often, and how much of it."""
