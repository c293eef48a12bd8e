ecflow_client --complete
