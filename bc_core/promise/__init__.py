"""A promise, a bound on a score: how it is read, judged, and kept while a model trains."""
