module github.com/volute-io/volute/tools

go 1.26
