package main

func try() {}

func show(string) error { return nil }
