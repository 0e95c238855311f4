"""What is printed of an application's events: schemas, AsyncAPI, TypeScript."""
