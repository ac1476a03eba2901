pytest_plugins = ["aioext.testing.plugin"]
