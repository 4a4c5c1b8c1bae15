"""As TensorBoard knows the plugin: in tags, folders and addresses. A file of its own, which imports nothing."""

PLUGIN_NAME = "backward_compatibility"
