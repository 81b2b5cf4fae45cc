package transfer_test

import (
	"io"
	"testing"

	"drover/transfer/transfertest"
)

func TestStreamInMemory(t *testing.T) {
	transfertest.Stream(t, func() (io.ReadWriteCloser, io.ReadWriteCloser, error) {
		a, b := transfertest.Pipe()
		return a, b, nil
	})
}
