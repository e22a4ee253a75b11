"""From native images and videos to masks: the engine that runs a network, and everything around it."""
