"""What an experiment is: schema, loading, seeding and the YAML files. Nothing here imports our other rooms."""
