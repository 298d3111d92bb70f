mvn -q -f java/pom.xml compile dependency:copy-dependencies

java -cp 'target/interop-java/classes:target/interop-java/lib/*' tr.muhurdar.example.Main invoice.xml sealed.xml
