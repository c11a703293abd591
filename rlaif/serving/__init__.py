"""The judge as a reward endpoint over HTTP. Needs the extra `rlaif[serve]`."""
