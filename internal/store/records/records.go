// Package records keeps what an engine must remember over a reboot, in the
// same bbolt file as containerd's metadata: buckets of JSON objects with schema
// numbers ([OpenBucket]), and the containers with their names, their hold on
// an image and their folders ([OpenContainers]).
//
// A record written by another release survives this one: keys it does not know
// are kept, migrations are numbered, and each record says which is the oldest
// schema that can read it (docs/decisions/0042).
//
// Lock order: a transaction of the database before [Containers.mu], which is a
// leaf. Folders are made before and removed after the transaction, never in it.
package records
