// usage: go run . INVOICE SEALED
// environment: MUHURDAR_HOME, the folder of `muhurdar dev`; MUHURDAR_ADDRESS, host:port
package main

import (
	"cmp"
	"log"
	"os"
)

func main() {
	home := cmp.Or(os.Getenv("MUHURDAR_HOME"), "/tmp/muhurdar")
	address := cmp.Or(os.Getenv("MUHURDAR_ADDRESS"), "127.0.0.1:7443")
	invoice, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := firstSeal(home, address, invoice)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], sealed, 0o644); err != nil {
		log.Fatal(err)
	}
}
