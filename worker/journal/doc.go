// Package journal is the worker's memory across crashes: an append-only file of what its sessions were about to do and have
// done. A step is on the disk before its act begins, so that a worker that comes back knows what may have happened.
//
// Each line is one record: the CRC-32C of the rest in hex, a space, the record as JSON. A last line that was cut off by a
// crash had not been acted on and is dropped; damage anywhere else means that something acted on is lost, and the journal is
// refused. The package never acts on what it reads: worker/session does. Start with Open.
package journal
