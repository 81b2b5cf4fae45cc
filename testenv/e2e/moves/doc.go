// Package moves tests whole moves with the real drover program on test hosts: coordinators, workers, keepers and CRIU are what a
// user has, and so is the network between them. What moves checks itself, a client talks to it all the time over one connection,
// and every test ends by looking for what was left behind. What is struck on the way beats over the network to a witness, who judges it from outside.
//
// It has tests only. Start with ground_test.go, which is what they stand on, then moves_test.go; what dies and when is the table
// in deaths_test.go, and the whole of it the matrix in points_test.go. Run it alone: `go test ./testenv/e2e/moves`; with -moves 100 for the long run of moves.
package moves
