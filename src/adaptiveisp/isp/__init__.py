"""The image signal processor: modules, their registry, pipelines and how they are executed."""
