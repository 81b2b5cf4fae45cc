// Package mutations breaks the protocol on purpose, one rule after the other, and sees that it is noticed: by the simulator, or by the test that the
// list names. A breakage is a change to the text of a production file, applied by the go command's -overlay: no copy of the tree is made,
// and no file of it touched.
//
// `make mutations` prints who caught what, and after how many schedules. The list itself is tried with every test: its texts must stand in the
// files, so that it does not rot.
package mutations
