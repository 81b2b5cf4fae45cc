// Package bench measures, on real hosts of one machine, the figures that drover's documents state. Nothing here passes or fails by
// the clock.
//
// BenchmarkBlackout and BenchmarkRefusal print the figures of the README. BenchmarkCompare moves the same programs over the same
// links by hand (CRIU, tar, zstd, SSH) and by drover; `make bench-report` writes what it finds to docs/benchmarks, with package
// report. Where the kernel has soft-dirty it has CRIU's own pre-dump and go-criu's phaul beside them: package vm runs it on such a
// kernel. Its standing selection takes a dozen minutes on a quiet machine; flags choose others, see options_test.go:
//
//	make bench-report BENCH='-programs redis -loads 10000 -sizes 1G -links 10g -repeat 20'
//	make bench-report BENCH='-sizes 64M,256M,1G,4G -links unlimited,10g,1g,200m'
package bench
