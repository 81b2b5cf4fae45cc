// Package pki is the cluster's trust: one SSH certificate authority, the certificates it gives to hosts and users, the
// identity a daemon keeps on its disk, and the token with which a machine joins.
//
// It never opens a connection and keeps no list of what it signed: who may join is the coordinators' record, and what a
// certificate's holder may do is asked where a channel is opened (transfer/link). Start reading with Principal.
package pki
