// Package evidence says what the record shows about a migration: who owned the tree when, by which entries of the log, and what
// the hosts had said when each was proposed; and what it does not show. It is pure: it reads a record.Migration and decides
// nothing. Start with Of.
package evidence
