// Prints its own stack, as Go's runtime sees it, and waits at the innermost function.
package main

// #include <stdlib.h>
import "C" // with C

import (
	"fmt"
	"runtime"
	"syscall"
)

//go:noinline
func show() {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		fmt.Println(frame.Function, frame.File, frame.Line)
		if !more {
			break
		}
	}
	fmt.Println("ready")
	syscall.Syscall(syscall.SYS_PAUSE, 0, 0, 0)
}

type shop[T any] struct{ kept T }

//go:noinline
func (s *shop[T]) sell(frame [2000]byte) {
	count(len(frame))
}

// Both are inlined into the one above.
func count(n int) { again(n) }
func again(n int) { show() }

func main() {
	C.free(nil) // with C
	sold := make(chan int)
	go func() {
		s := shop[int]{1}
		func() { s.sell([2000]byte{}) }()
		sold <- 1
	}()
	<-sold
}
