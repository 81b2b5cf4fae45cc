// Package bench measures, on real hosts of one machine, the figures that drover's documents state: `make bench` runs it and
// prints them with the machine's data. Every figure is the median of several moves in one run; nothing here passes or fails by
// the clock.
package bench
