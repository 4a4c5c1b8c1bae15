"""A Keras model that trains as before and is pulled towards what h1 got right."""
