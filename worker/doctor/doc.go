// Package doctor says before anything is touched whether a tree can move: Inspect looks at it on the source and says what a
// target must have and what cannot be dumped, Judge looks at the target. Both change nothing; a tree being looked at does
// not notice.
//
// Looking and judging are apart. What was seen on the source (type seen) and what a target has (type place) are plain data;
// the judges over them (judge_source.go, judge_target.go) are pure and table-tested. Every finding says GO, GO-WITH-FLAG (the
// flag is in Inventory.Options, drover sets it) or NO-GO with a way to mend it.
//
// A look is not a promise: a tree may open another file a moment later. What the doctor misses, the restore finds while the
// source is still held, and the migration is rolled back.
//
// Start with Inspect and Judge; Doctor joins them to a worker.
package doctor
