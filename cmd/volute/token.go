package main

import (
	"context"
	"fmt"
	"time"

	"github.com/volute-io/volute/server"
)

type gentokenCmd struct {
	source
	User string        `short:"u" required:"" help:"User the token is for."`
	TTL  time.Duration `short:"t" default:"168h" help:"How long it is valid; 0 is for ever."`
}

// Help is the longer help.
func (c *gentokenCmd) Help() string {
	return "It is signed with client.token.hmac_secret_key of the configuration."
}

// Run prints a connection token.
func (c *gentokenCmd) Run(ctx context.Context) error {
	return generate(ctx, &c.source, c.User, "", c.TTL)
}

type gensubtokenCmd struct {
	source
	User    string        `short:"u" help:"User the token is for; none is an anonymous one."`
	Channel string        `short:"s" required:"" help:"Channel the token is for."`
	TTL     time.Duration `short:"t" default:"168h" help:"How long it is valid; 0 is for ever."`
}

// Run prints a subscription token.
func (c *gensubtokenCmd) Run(ctx context.Context) error {
	return generate(ctx, &c.source, c.User, c.Channel, c.TTL)
}

func generate(ctx context.Context, s *source, user, channel string, ttl time.Duration) error {
	cfg, _, err := s.load(ctx)
	if err != nil {
		return err
	}
	token, err := server.GenerateToken(cfg, user, channel, ttl)
	if err != nil {
		return err
	}
	fmt.Println(token)
	return nil
}

type checktokenCmd struct {
	source
	Token string `arg:"" help:"The token."`
}

// Run says what a connection token is worth.
func (c *checktokenCmd) Run(ctx context.Context) error { return check(ctx, &c.source, c.Token, false) }

type checksubtokenCmd struct {
	source
	Token string `arg:"" help:"The token."`
}

// Run says what a subscription token is worth.
func (c *checksubtokenCmd) Run(ctx context.Context) error {
	return check(ctx, &c.source, c.Token, true)
}

func check(ctx context.Context, s *source, token string, subscription bool) error {
	cfg, _, err := s.load(ctx)
	if err != nil {
		return err
	}
	said, err := server.CheckToken(ctx, cfg, token, subscription)
	if said != "" {
		fmt.Println(said)
	}
	if err == nil {
		fmt.Println("valid")
	}
	return err
}
