package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
)

type initCmd struct {
	File string `arg:"" optional:"" default:"volute.yaml" help:"File to write; it must not exist."`
}

const firstConfig = `# volute serve reads this file. Every key: volute configdoc
http_server:
  port: 8000
client:
  allowed_origins: [http://localhost:8000, http://127.0.0.1:8000]
  token:
    hmac_secret_key: %s
http_api:
  key: %s

# Who decides about clients and answers their calls? Worker processes, in any language:
# workers:
#   app: { command: php app.php, codec: json }
# backend: worker://app
#
# or a service elsewhere:
# backend: grpc://127.0.0.1:10001
`

// Run writes a configuration with fresh secrets.
func (c *initCmd) Run() error {
	f, err := os.OpenFile(c.File, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already and is left alone", c.File)
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, firstConfig, rand.Text(), rand.Text()); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Printf("%s written. Next: volute check, then volute serve\n", c.File)
	return nil
}
