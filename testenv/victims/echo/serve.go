package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"drover/testenv/victims/vital"
)

// A request is a number of 8 bytes; an answer is that number and the connection's count, 16 bytes, big-endian.
const (
	requestSize = 8
	answerSize  = 16
)

func serve(at string) error {
	ctx, stop := vital.Until(0)
	defer stop()
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		l.Close()
	}()
	fmt.Println("listening at", l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go func() {
			defer c.Close()
			if err := answer(c); !errors.Is(err, io.EOF) {
				fmt.Println("connection of", c.RemoteAddr(), "ended:", err)
			}
		}()
	}
}

// answer ends with an error, io.EOF when the client has hung up.
func answer(c io.ReadWriter) error {
	message := make([]byte, answerSize)
	for served := uint64(1); ; served++ {
		if _, err := io.ReadFull(c, message[:requestSize]); err != nil {
			return err
		}
		binary.BigEndian.PutUint64(message[requestSize:], served)
		if _, err := c.Write(message); err != nil {
			return err
		}
	}
}
