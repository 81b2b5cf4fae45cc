// Package agent is the worker daemon: one on each host, as root. It joins what the other packages of worker do: it listens for
// coordinators (worker/api) and for other workers' page channels, holds the sessions, tells the coordinators every second how
// the host is, and asks them for the verdict when something is held and no leader speaks.
//
// It owns the daemon's life: the journal, the directory in memory for images, the server, the loops. It decides nothing about
// a migration and touches no tree. Start with New and Run.
package agent
