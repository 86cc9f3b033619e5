module governedmodels.io/tests/support/go/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.21.0 // its definitions are read; its operator takes more than eleven minutes of CPU to compile
