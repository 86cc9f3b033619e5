from governed_serving import serve

serve("auditor")
