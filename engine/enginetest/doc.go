// Package enginetest is the suite that every engine.Engine passes: the model in engine/fake on any machine, the real one on a
// test host with real trees.
//
// Each test says one sentence of the contract in engine/engine.go. Start with Run; what an engine must bring is a Ground.
package enginetest
