"""The contract as files: JSON Schemas, AsyncAPI and the map of topics, generated from models and topics."""
