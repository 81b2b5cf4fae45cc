// Package transfertest is what tests of and above drover's wire need: Network, hosts joined by connections in memory that can
// be delayed, cut, healed and reset, under real time and in a testing/synctest bubble.
//
// Start reading with Network.
package transfertest
