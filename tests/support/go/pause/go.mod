module governedmodels.io/tests/support/go/pause

go 1.26.0
