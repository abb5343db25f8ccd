// Works in what Go has in assembly, and keeps its collector of garbage busy.
package main

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"math/big"
	"os"
	"time"
)

var data = make([]byte, 16384)

func hashes()                  { sha256.Sum256(data); sha1.Sum(data); sha512.Sum512(data); md5.Sum(data) }
func sign(k *ecdsa.PrivateKey) { ecdsa.Sign(rand.Reader, k, data[:32]) }
func seal(a cipher.AEAD)       { a.Seal(nil, data[:12], data, nil) }
func power()                   { x := big.NewInt(3); x.Exp(x, big.NewInt(100000), nil) }
func text() {
	for i := 0; i < 1000; i++ {
		_ = fmt.Sprintf("%d %s", i, data[:10])
	}
}

func main() {
	k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	b, _ := aes.NewCipher(data[:16])
	a, _ := cipher.NewGCM(b)
	c := make(chan int)
	go func() {
		for {
			time.Sleep(time.Millisecond)
			c <- 1
		}
	}()
	for len(os.Args) > 0 {
		for i := 0; i < 20; i++ {
			hashes()
			seal(a)
			sign(k)
		}
		power()
		text()
		r.Sign(rand.Reader, data[:32], sum{})
		select {
		case <-c:
		default:
		}
	}
}

type sum struct{}

func (sum) HashFunc() (h crypto.Hash) { return 5 }
