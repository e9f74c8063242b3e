// Package storagesource keeps client records in a [certmagic.Storage], so that nodes
// which share the storage share their clients, and any of them can change one.
//
// The records of a realm are in at most 1024 shards, by the hash of their client_id.
// A shard is one object of JSON Lines, sorted by client_id. It never changes: a change
// makes a new object, whose name has its number and its hash. The object index.json
// names the current object of each shard. Storing it is what puts a change into
// storage, so that storage has the state before or the state after, wherever a writer
// stops:
//
//	mtls/<realm>/clients/index.json
//	mtls/<realm>/clients/0a3-17-8ac37b06c3a4d9f2b5e1f6a7c8d9e0f1.jsonl
//
// A writer holds the storage lock mtls/<realm>/clients. It stores the object of the
// shard, then the index, and deletes the object that was replaced. An object that a
// writer has left behind is deleted once the index names a later one of its shard.
//
// Nodes read the index every few seconds, and then only the shards that have changed.
package storagesource
