// Package engine holds the real engine to its contract: drover/engine/criu on a test host, with the suite of engine/enginetest.
//
// The test builds itself, static, puts itself on a host and runs there (inside_test.go); the trees it dumps are the same binary
// again, under another name (victim_test.go). What is measured for the documents stands in bench_test.go. It never dumps
// anything of the machine it runs on.
package engine
