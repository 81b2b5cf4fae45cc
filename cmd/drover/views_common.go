package main

import (
	"fmt"
	"io"
)

// doneView says that something was done to something.
type doneView struct {
	Done string `json:"done"`
	Name string `json:"name"`
}

func (v doneView) text(w io.Writer) { fmt.Fprintf(w, "%s %s\n", v.Done, v.Name) }

// none is what a list says that is empty, for people.
func none(w io.Writer, what, next string) {
	fmt.Fprintf(w, "no %s; %s\n", what, next)
}
