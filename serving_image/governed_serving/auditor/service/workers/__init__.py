"""What the auditor does over and over, a worker each: fold, judge, ship, exchange, check, report; see
:mod:`..scheduling`."""
