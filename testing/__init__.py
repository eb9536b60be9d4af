"""What users test with: scripted models, servers for a test session, a stack for one test."""
