// Package report turns what the comparison of package bench measured into what is committed under docs/benchmarks: the raw data as
// JSON, tables, plots, and the list of figures to reach with what was reached.
//
// It is pure: it measures nothing and reads nothing but Report, so that the same data always gives the same pages. Start with Report
// and Write.
package report

//go:generate go test -run TestTheCommittedReport . -update
