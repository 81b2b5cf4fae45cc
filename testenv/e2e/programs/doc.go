// Package programs holds end-to-end tests: the drover program as its users run it, on real hosts, with programs that people
// run. Nothing of drover is called directly, only its verbs. There is one cluster a test file; start with bed_test.go.
package programs
